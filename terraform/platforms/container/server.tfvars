# What Terraform makes. The same names on every platform; terraform/README.md explains each.
platform       = "container"
name           = "local"
debian_release = 13
server_name    = "localhost"
listen_address = "127.0.0.1"
https_port     = 8443
ssh_port       = 8422
