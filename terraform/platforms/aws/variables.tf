# Only its validation reads it.
# tflint-ignore: terraform_unused_declarations
variable "platform" {
  description = "The platform that this file of values is for; guards against applying it to another one."
  type        = string

  validation {
    condition     = var.platform == "aws"
    error_message = "platform is not \"aws\", but this is the aws platform: run make with the environment whose server.tfvars you mean."
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

variable "aws_region" {
  description = "AWS region of everything that is made."
  type        = string

  validation {
    condition     = can(regex("^[a-z]{2}(-[a-z]+)+-[0-9]$", var.aws_region))
    error_message = "aws_region must be the name of a region such as eu-central-1, without the letter of a zone."
  }
}

variable "aws_ssh_networks" {
  description = "IPv4 networks that may reach the hosts by ssh: those of the machines that run make."
  type        = list(string)

  validation {
    condition     = length(var.aws_ssh_networks) > 0
    error_message = "aws_ssh_networks is empty, so Ansible could not reach the hosts: name this machine's network, such as [\"203.0.113.7/32\"]."
  }

  validation {
    condition     = alltrue([for network in var.aws_ssh_networks : can(cidrnetmask(network)) && try(cidrsubnet(network, 0, 0), "") == network])
    error_message = "aws_ssh_networks must hold IPv4 networks such as 203.0.113.0/24, or 203.0.113.7/32 for one address."
  }

  validation {
    condition     = !contains([for network in var.aws_ssh_networks : try(split("/", network)[1], "")], "0")
    error_message = "aws_ssh_networks holds the whole internet: name the networks of the machines that run make, such as [\"203.0.113.7/32\"]."
  }
}

variable "aws_https_networks" {
  description = "IPv4 networks of the clients; 0.0.0.0/0 opens the server to the whole internet."
  type        = list(string)

  validation {
    condition     = length(var.aws_https_networks) > 0
    error_message = "aws_https_networks is empty, so nobody could reach the server: name the clients' networks, such as [\"203.0.113.0/24\"]."
  }

  validation {
    condition     = alltrue([for network in var.aws_https_networks : can(cidrnetmask(network)) && try(cidrsubnet(network, 0, 0), "") == network])
    error_message = "aws_https_networks must hold IPv4 networks such as 203.0.113.0/24; 0.0.0.0/0 is everybody."
  }
}

variable "aws_instance_type" {
  description = "Type of the instances, with at least memory_mb and cores; changing it stops the hosts for a minute."
  type        = string
  default     = "t3.medium"

  validation {
    condition     = can(regex("^[a-z0-9-]+\\.[a-z0-9-]+$", var.aws_instance_type))
    error_message = "aws_instance_type must be the name of a type such as t3.medium."
  }
}

variable "aws_subnet_id" {
  description = "Subnet for the hosts; left out, they get a VPC of their own with the network `subnet`."
  type        = string
  default     = null

  validation {
    condition     = var.aws_subnet_id == null || can(regex("^subnet-[0-9a-f]+$", var.aws_subnet_id))
    error_message = "aws_subnet_id must be the id of a subnet, such as subnet-0123456789abcdef0."
  }
}

variable "aws_public_address" {
  description = "Whether each host gets a public address; false is for a private subnet that has its own way out to the internet."
  type        = bool
  default     = true

  validation {
    condition     = var.aws_public_address || var.aws_subnet_id != null
    error_message = "aws_public_address is false, but only in a subnet of your own can hosts do without: name it in aws_subnet_id."
  }
}

variable "aws_dns_zone_id" {
  description = "Route 53 zone in which server_name gets its record; left out, nobody makes one."
  type        = string
  default     = null

  validation {
    condition     = var.aws_dns_zone_id == null || can(regex("^[A-Z0-9]+$", var.aws_dns_zone_id))
    error_message = "aws_dns_zone_id must be the id of a hosted zone, such as Z0123456789ABCDEFGHIJ."
  }

  validation {
    condition     = var.aws_dns_zone_id == null || (var.server_name != null && !can(cidrnetmask("${var.server_name}/32")))
    error_message = "aws_dns_zone_id needs a name for the record: set server_name to one in that zone, such as mlflow.example.org."
  }
}

variable "aws_bucket" {
  description = "S3 bucket for the artifacts, made in MinIO's place; left out, a host must carry the group minio."
  type        = string
  default     = null

  validation {
    condition     = var.aws_bucket == null || can(regex("^[a-z0-9][a-z0-9-]{1,61}[a-z0-9]$", var.aws_bucket))
    error_message = "aws_bucket must be 3 to 63 small letters, digits and hyphens, and no other bucket in the world may have that name."
  }

  validation {
    condition     = var.aws_bucket != null || anytrue([for host in var.hosts : contains(host.groups, "minio")])
    error_message = "aws_bucket is not set and no host carries the group minio, so artifacts have no place: do one or the other."
  }
}
