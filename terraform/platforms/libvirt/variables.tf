# Only its validation reads it.
# tflint-ignore: terraform_unused_declarations
variable "platform" {
  description = "The platform that this file of values is for; guards against applying it to another one."
  type        = string

  validation {
    condition     = var.platform == "libvirt"
    error_message = "platform is not \"libvirt\", but this is the libvirt platform: run make with the environment whose server.tfvars you mean."
  }
}

variable "name" {
  description = "Name of the environment; part of the name of everything that is made."
  type        = string

  validation {
    condition     = can(regex("^[a-z][a-z0-9-]{0,29}$", var.name))
    error_message = "name must be small letters, digits and hyphens, a letter first, 30 at most."
  }
}

variable "hosts" {
  description = "Hosts by name, and the groups of software each one carries: postgresql, minio, mlflow, nginx."
  type        = map(object({ groups = set(string) }))
  default     = { server = { groups = ["postgresql", "minio", "mlflow", "nginx"] } }

  validation {
    condition     = length(var.hosts) > 0
    error_message = "hosts is empty: name at least one host, as in { server = { groups = [\"postgresql\", \"minio\", \"mlflow\", \"nginx\"] } }."
  }

  validation {
    condition     = alltrue([for host in var.hosts : length(setsubtract(host.groups, ["postgresql", "minio", "mlflow", "nginx"])) == 0])
    error_message = "hosts names an unknown group: the groups are postgresql, minio, mlflow and nginx."
  }

  validation {
    condition     = length([for host in var.hosts : host if contains(host.groups, "nginx")]) == 1
    error_message = "exactly one host must carry the group nginx: it is the one that clients reach."
  }
}

# Named here for everybody; make provision turns it into host_image.
# tflint-ignore: terraform_unused_declarations
variable "debian_release" {
  description = "Debian release of the hosts: 12 or 13. Changing it replaces the hosts and keeps their data volumes."
  type        = number
  default     = 13

  validation {
    condition     = contains([12, 13], var.debian_release)
    error_message = "debian_release must be 12 or 13."
  }
}

variable "server_name" {
  description = "Name or address under which clients reach the server; the certificate is made for it. Left out, it is localhost on container and the host's own address elsewhere."
  type        = string
  default     = null

  validation {
    condition     = var.server_name == null || can(regex("^[A-Za-z0-9][A-Za-z0-9.-]*$", var.server_name))
    error_message = "server_name must be a host name or an IPv4 address, without https:// and without a port."
  }
}

# Every platform takes the same variables.
# tflint-ignore: terraform_unused_declarations
variable "listen_address" {
  description = "Address of this machine on which a container's ports appear; 0.0.0.0 opens it to the network. A host with an address of its own needs none."
  type        = string
  default     = "127.0.0.1"

  validation {
    condition     = can(cidrhost("${var.listen_address}/32", 0))
    error_message = "listen_address must be an IPv4 address: 127.0.0.1 for this machine only, 0.0.0.0 for the network."
  }
}

# Every platform takes the same variables.
# tflint-ignore: terraform_unused_declarations
variable "https_port" {
  description = "Port of this machine on which clients reach a container; a host with an address of its own listens on 443."
  type        = number
  default     = 8443

  validation {
    condition     = var.https_port >= 1 && var.https_port <= 65535
    error_message = "https_port must be a port number from 1 to 65535."
  }
}

# Every platform takes the same variables.
# tflint-ignore: terraform_unused_declarations
variable "ssh_port" {
  description = "Port of this machine's loopback for ssh to the first container; further hosts, by name, take the next ones. A host with an address of its own listens on 22."
  type        = number
  default     = 8422

  validation {
    condition     = var.ssh_port >= 1 && var.ssh_port + length(var.hosts) <= 65536 && (var.https_port < var.ssh_port || var.https_port >= var.ssh_port + length(var.hosts))
    error_message = "ssh_port and the ports after it, one a host, must lie from 1 to 65535 and not meet https_port."
  }
}

variable "memory_mb" {
  description = "Memory of each host in MiB. Changing it replaces a container or a virtual machine, and keeps its data volume."
  type        = number
  default     = 4096

  validation {
    condition     = var.memory_mb >= 2048
    error_message = "memory_mb must be 2048 or more: PostgreSQL, MinIO and two MLflow processes need that much."
  }
}

variable "cores" {
  description = "Processor cores of each host. Changing it replaces a virtual machine, and keeps its data volume; a container shares the machine's cores instead."
  type        = number
  default     = 2

  validation {
    condition     = var.cores >= 1
    error_message = "cores must be 1 or more."
  }
}

variable "data_size_gb" {
  description = "Size of each data volume in GiB; it can grow, and never shrink. A container's volume grows with the machine's disk instead."
  type        = number
  default     = 20

  validation {
    condition     = var.data_size_gb >= 5
    error_message = "data_size_gb must be 5 or more."
  }
}

variable "ssh_public_key" {
  description = "Public half of the environment's ssh key, in OpenSSH's format; the user longrun may log in with it."
  type        = string

  validation {
    condition     = can(regex("^(ssh-ed25519|ssh-rsa|ecdsa-sha2-nistp256) ", var.ssh_public_key))
    error_message = "ssh_public_key must be one line in OpenSSH's format: make provision makes and passes it."
  }
}

variable "host_image" {
  description = "Image of the hosts: a container image, a disk image file or an AMI. Left out, make provision makes or finds Debian's; another one replaces the hosts and keeps their data volumes."
  type        = string
  default     = null
}

variable "subnet" {
  description = "IPv4 network of the hosts, as a /24; left out, it is drawn from the name, so that environments keep apart."
  type        = string
  default     = null

  validation {
    condition     = var.subnet == null || can(cidrhost(var.subnet, 254))
    error_message = "subnet must be an IPv4 network such as 10.200.7.0/24."
  }
}

variable "libvirt_domain_type" {
  description = "kvm, or qemu where the processor's own virtualization is not at hand; make provision tries and says which."
  type        = string
  default     = "kvm"

  validation {
    condition     = contains(["kvm", "qemu"], var.libvirt_domain_type)
    error_message = "libvirt_domain_type must be kvm, or qemu for emulation."
  }
}

variable "libvirt_directory" {
  description = "Folder in which each environment has a folder for its disks."
  type        = string
  default     = "/var/lib/libvirt/longrun"

  validation {
    condition     = can(regex("^/[A-Za-z0-9._/-]*[A-Za-z0-9]$", var.libvirt_directory))
    error_message = "libvirt_directory must be an absolute path without spaces, such as /var/lib/libvirt/longrun."
  }
}

variable "libvirt_root_size_gb" {
  description = "Size of each host's own disk in GiB; it holds the system and programs, and takes only what they do."
  type        = number
  default     = 20

  validation {
    condition     = var.libvirt_root_size_gb >= 8
    error_message = "libvirt_root_size_gb must be 8 or more."
  }
}

variable "libvirt_network_mode" {
  description = "nat: only this machine reaches the hosts; route: so does whoever has a route to their network over this machine."
  type        = string
  default     = "nat"

  validation {
    condition     = contains(["nat", "route"], var.libvirt_network_mode)
    error_message = "libvirt_network_mode must be nat or route."
  }
}
