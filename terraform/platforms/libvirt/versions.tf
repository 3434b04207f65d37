terraform {
  required_version = ">= 1.9"

  # The state lies in the environment's folder; `make provision` names it.
  backend "local" {}

  required_providers {
    libvirt = {
      source = "dmacvicar/libvirt"
      # The last of the series that manages images and cloud-init disks by itself; 0.9 is another provider under the same name.
      version = "0.8.3"
    }
  }
}

provider "libvirt" {
  uri = "qemu:///system"
}
