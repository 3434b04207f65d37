locals {
  digest = sha256(var.name)
  subnet = coalesce(var.subnet, format(
    "10.%d.%d.0/24",
    192 + parseint(substr(local.digest, 0, 2), 16) % 32,
    parseint(substr(local.digest, 2, 2), 16),
  ))
  data_path = "/srv/longrun"
  gib       = pow(2, 30)
  # An image that we made has its kernel beside it; one with a boot loader of its own, such as Debian's, has not.
  boot_files = toset([for kind in ["vmlinuz", "initrd"] : kind if fileexists("${var.host_image}.${kind}")])
  # What guards a real processor's guesses costs an emulated one, which makes none, an eighth of its time. An idle one shall sleep: the emulator can't
  # wait for a memory cell (MWAIT, which Linux would take), and keeps a core of this machine busy instead. And it copies byte by byte where Linux takes
  # it for quick at that (ERMS): a page of memory costs 30 µs without it and 100 with it, reading a file an eighth.
  emulated       = { clearcpuid = "erms", idle = "halt", mitigations = "off" }
  kernel_options = merge({ console = "ttyS0", root = "/dev/vda" }, var.libvirt_domain_type == "qemu" ? local.emulated : {})
  hosts = {
    for index, name in keys(var.hosts) : name => {
      groups = var.hosts[name].groups
      # A fixed place for each host keeps its address, which PostgreSQL's access list names.
      address = cidrhost(local.subnet, 10 + index)
      mac     = format("52:54:00:%s:%s:%02x", substr(local.digest, 4, 2), substr(local.digest, 6, 2), 10 + index)
    }
  }
  entrance = one([for name, host in local.hosts : host.address if contains(host.groups, "nginx")])
}

resource "libvirt_pool" "this" {
  name = "longrun-${var.name}"
  type = "dir"

  target {
    path = "${var.libvirt_directory}/${var.name}"
  }

  lifecycle {
    # The data volumes lie in it.
    prevent_destroy = true
  }
}

resource "libvirt_volume" "image" {
  # Named after its file, which is named after its recipe: another image is another volume, and another host.
  name   = basename(var.host_image)
  pool   = libvirt_pool.this.name
  source = var.host_image
  format = "qcow2"
}

resource "libvirt_volume" "boot" {
  for_each = local.boot_files

  name   = "${basename(var.host_image)}.${each.key}"
  pool   = libvirt_pool.this.name
  source = "${var.host_image}.${each.key}"
  format = "raw"
}

resource "libvirt_volume" "root" {
  for_each = local.hosts

  name           = "${each.key}-root.qcow2"
  pool           = libvirt_pool.this.name
  base_volume_id = libvirt_volume.image.id
  size           = var.libvirt_root_size_gb * local.gib
  format         = "qcow2"
}

resource "libvirt_volume" "data" {
  for_each = local.hosts

  name   = "${each.key}-data.qcow2"
  pool   = libvirt_pool.this.name
  size   = var.data_size_gb * local.gib
  format = "qcow2"

  lifecycle {
    # The history of every run lives here, and nothing can bring it back; `make destroy` lifts this in a copy of its own.
    prevent_destroy = true
  }
}

module "cloud_init" {
  source   = "../../modules/cloud-init"
  for_each = local.hosts

  hostname       = each.key
  ssh_public_key = var.ssh_public_key
  data_device    = "/dev/vdb"
}

resource "libvirt_cloudinit_disk" "host" {
  for_each = local.hosts

  name      = "${each.key}-cloud-init.iso"
  pool      = libvirt_pool.this.name
  user_data = module.cloud_init[each.key].user_data
  # Another first boot is another instance: cloud-init then runs it on the disk that is there.
  meta_data = yamlencode({ instance-id = substr(sha256(module.cloud_init[each.key].user_data), 0, 12) })
}

resource "libvirt_network" "this" {
  name      = "longrun-${var.name}"
  mode      = var.libvirt_network_mode
  addresses = [local.subnet]
  autostart = true

  dhcp {
    enabled = true
  }
}

resource "libvirt_domain" "host" {
  for_each = local.hosts

  name      = "longrun-${var.name}-${each.key}"
  type      = var.libvirt_domain_type
  vcpu      = var.cores
  memory    = var.memory_mb
  autostart = true
  cloudinit = libvirt_cloudinit_disk.host[each.key].id

  # numpy wants more of a processor (x86-64-v2) than the emulator gives unasked.
  cpu {
    mode = var.libvirt_domain_type == "kvm" ? "host-passthrough" : "maximum"
  }

  kernel = try(libvirt_volume.boot["vmlinuz"].id, null)
  initrd = try(libvirt_volume.boot["initrd"].id, null)
  # Sorted and with the flags in a map of their own, as libvirt gives it back: else the next plan replaces the host.
  cmdline = [for options in [local.kernel_options, { "_" = "rw" }] : options if length(local.boot_files) > 0]

  disk {
    volume_id = libvirt_volume.root[each.key].id
  }

  disk {
    volume_id = libvirt_volume.data[each.key].id
  }

  network_interface {
    network_id = libvirt_network.this.id
    hostname   = each.key
    mac        = upper(each.value.mac)
    addresses  = [each.value.address]
  }

  console {
    type        = "pty"
    target_port = "0"
    target_type = "serial"
  }

  lifecycle {
    # Only its first boot reads what the cloud-init disk says.
    replace_triggered_by = [libvirt_cloudinit_disk.host[each.key].id]
  }
}
