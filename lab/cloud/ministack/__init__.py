"""ministack's EC2 and load balancers, as strict as AWS where this project needs it; `adapter` puts it in place."""
