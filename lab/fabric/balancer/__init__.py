"""What stands for Network Load Balancers, as a process in a network namespace: `python -m lab.fabric.balancer`.

- `table`       what it is told, one JSON line at each change
- `flows`       which target a datagram goes to (pure)
- `checks`      whether a target is healthy (pure); `probe` makes one check over the network, `watching` all of them
- `packets`     cutting a datagram, and the packet that carries it on (pure)
- `forwarding`  the sockets; `counts` what went through them

A mirror session's VXLAN device sends to a UDP port of its own, so that its datagrams are known by the port; they leave
with the source address and port that they came with, as behind AWS's load balancer. Targets of all zones take part, as
with cross-zone load balancing.
"""
