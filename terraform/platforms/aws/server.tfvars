# What Terraform makes. The same names on every platform, but for aws_; terraform/README.md explains each.
platform       = "aws"
name           = "local"
debian_release = 13
aws_region     = "eu-central-1"
# Put in yours: the networks of the machines that run make, such as ["203.0.113.7/32"], and those of the clients.
aws_ssh_networks   = []
aws_https_networks = []
