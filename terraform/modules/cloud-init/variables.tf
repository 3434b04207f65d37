variable "hostname" {
  description = "Name of the host within its environment."
  type        = string
}

variable "ssh_public_key" {
  description = "Public half of the environment's ssh key, in OpenSSH's format; the user longrun may log in with it."
  type        = string
}

variable "data_device" {
  description = "Block device of the data disk on the host, by a name that stays the same."
  type        = string
}
