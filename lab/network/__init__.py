"""The lab's network: a sandbox, four network namespaces in it, links, the kernel's mirror, nginx."""
