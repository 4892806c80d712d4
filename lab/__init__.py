"""A VPC on one machine: real clients, a real production server, a mirror made by the kernel, and the worker under test.

- `network`   namespaces, links, the mirror and nginx, in a sandbox that leaves nothing behind
- `clients`   paced connections whose every byte is known, and where it lies in its stream
- `relay`     loses, reorders and doubles mirrored datagrams, and knows which
- `recorder`  a test environment that writes down what it received
- `verdict`   what was sent, received and lost, compared
- `rehearsal` all of these together around one `replayer run`
- `demo`      the same for people: curl, h2load and nginx, and a table at the end
"""
