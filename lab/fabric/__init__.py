"""A VPC out of network namespaces: what the EC2 and ELB APIs say, made by the kernel and one process."""
