# What Terraform makes. The same names on every platform; terraform/README.md explains each.
platform       = "libvirt"
name           = "local"
debian_release = 13
memory_mb      = 4096
cores          = 2
data_size_gb   = 20
