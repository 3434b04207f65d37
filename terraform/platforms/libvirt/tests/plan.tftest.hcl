# What is planned, without a hypervisor: the provider is a mock, and these are its answers.
mock_provider "libvirt" {
  override_resource {
    target          = libvirt_volume.root
    values          = { id = "/pool/root" }
    override_during = plan
  }
  override_resource {
    target          = libvirt_volume.data
    values          = { id = "/pool/data" }
    override_during = plan
  }
  override_resource {
    target          = libvirt_volume.boot
    values          = { id = "/pool/boot" }
    override_during = plan
  }
  override_resource {
    target          = libvirt_volume.image
    values          = { id = "/pool/image" }
    override_during = plan
  }
}

variables {
  platform = "libvirt"
  name     = "unit"
  # Its kernel lies beside it, itself it need not be there.
  host_image     = "tests/image.qcow2"
  ssh_public_key = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIGVhc3k longrun-unit"
}

run "one_host_carries_everything" {
  command = plan

  assert {
    condition     = keys(libvirt_domain.host) == ["server"] && keys(libvirt_volume.root) == ["server"] && keys(libvirt_volume.data) == ["server"] && keys(libvirt_cloudinit_disk.host) == ["server"]
    error_message = "The default is one host, called server, with a disk of its own, a data volume and a cloud-init disk."
  }
  assert {
    condition     = libvirt_domain.host["server"].name == "longrun-unit-server" && libvirt_network.this.name == "longrun-unit" && libvirt_pool.this.name == "longrun-unit"
    error_message = "Everything must bear the environment's name, or two environments meet."
  }
  assert {
    condition     = libvirt_pool.this.type == "dir" && one(libvirt_pool.this.target).path == "/var/lib/libvirt/longrun/unit"
    error_message = "Each environment keeps its disks in a folder of its own."
  }
  assert {
    condition     = alltrue([for pool in concat([for volume in libvirt_volume.root : volume.pool], [for volume in libvirt_volume.data : volume.pool], [for volume in libvirt_volume.boot : volume.pool], [libvirt_volume.image.pool, libvirt_cloudinit_disk.host["server"].pool]) : pool == "longrun-unit"])
    error_message = "A disk in another pool would stay behind when the environment is destroyed."
  }
  assert {
    condition     = output.hosts["server"].groups == tolist(["minio", "mlflow", "nginx", "postgresql"]) && output.hosts["server"].data_path == "/srv/longrun"
    error_message = "The one host carries all groups, its data at /srv/longrun."
  }
  assert {
    condition     = libvirt_domain.host["server"].autostart == true && libvirt_network.this.autostart == true
    error_message = "The server must come back with the machine."
  }
}

run "the_address_stays_the_same" {
  command = plan

  assert {
    condition     = one(libvirt_domain.host["server"].network_interface).addresses == tolist(["10.216.92.10"]) && one(libvirt_domain.host["server"].network_interface).mac == "52:54:00:FD:BC:0A"
    error_message = "PostgreSQL's access list and the lease of the network both need an address that stays."
  }
  assert {
    condition     = one(libvirt_network.this.dhcp).enabled == true && one(libvirt_domain.host["server"].network_interface).hostname == "server"
    error_message = "The host gets its address and its name from the network."
  }
  assert {
    condition     = output.hosts["server"].address == "10.216.92.10" && output.hosts["server"].private_address == "10.216.92.10" && output.hosts["server"].port == 22 && output.hosts["server"].user == "longrun"
    error_message = "Ansible reaches the host at its own address, as longrun."
  }
  assert {
    condition     = output.public_url == "https://10.216.92.10"
    error_message = "Clients are told another address than the one that is listened on."
  }
}

run "the_network_is_drawn_from_the_name" {
  command = plan

  assert {
    condition     = libvirt_network.this.addresses == tolist(["10.216.92.0/24"])
    error_message = "The network must lie in 10.192.0.0/11, where few others are, and stay the same for a name."
  }
  assert {
    condition     = libvirt_network.this.mode == "nat"
    error_message = "Nobody but this machine may reach the hosts unless it is asked for."
  }
}

run "another_name_is_another_network" {
  command = plan

  variables {
    name = "other"
  }

  assert {
    condition     = libvirt_network.this.addresses == tolist(["10.217.41.0/24"]) && one(libvirt_domain.host["server"].network_interface).mac == "52:54:00:8A:10:0A"
    error_message = "Two environments on one machine must keep apart, and no two hosts may have one hardware address."
  }
  assert {
    condition     = one(libvirt_pool.this.target).path == "/var/lib/libvirt/longrun/other"
    error_message = "Two environments must not share a folder: destroying one would take the other's data."
  }
}

run "a_network_that_was_asked_for" {
  command = plan

  variables {
    subnet               = "10.200.7.0/24"
    libvirt_network_mode = "route"
  }

  assert {
    condition     = libvirt_network.this.addresses == tolist(["10.200.7.0/24"]) && libvirt_network.this.mode == "route"
    error_message = "A routed network must be the one for which there is a route."
  }
  assert {
    condition     = output.hosts["server"].address == "10.200.7.10"
    error_message = "The host's address must lie in the network that was asked for."
  }
}

run "the_processor_is_the_machines_own" {
  command = plan

  assert {
    condition     = libvirt_domain.host["server"].type == "kvm" && one(libvirt_domain.host["server"].cpu).mode == "host-passthrough"
    error_message = "Under KVM a host has the machine's processor, with all that numpy makes use of."
  }
}

run "an_emulated_processor_has_all_there_is" {
  command = plan

  variables {
    libvirt_domain_type = "qemu"
  }

  assert {
    condition     = libvirt_domain.host["server"].type == "qemu" && one(libvirt_domain.host["server"].cpu).mode == "maximum"
    error_message = "numpy does not start on the processor that the emulator gives unasked."
  }
}

run "the_data_is_on_a_disk_of_its_own" {
  command = plan

  assert {
    condition     = [for disk in libvirt_domain.host["server"].disk : disk.volume_id] == ["/pool/root", "/pool/data"]
    error_message = "The data volume must be the second disk, /dev/vdb, where the first boot mounts it; without it, replacing the host would delete the history."
  }
  assert {
    condition     = libvirt_volume.data["server"].name == "server-data.qcow2" && libvirt_volume.data["server"].size == 21474836480 && libvirt_volume.data["server"].format == "qcow2"
    error_message = "The data volume is 20 GiB; make provision enlarges it by this name."
  }
  assert {
    condition     = libvirt_volume.data["server"].source == null && libvirt_volume.data["server"].base_volume_id == null
    error_message = "A data volume that depends on the image would go with it."
  }
}

run "a_larger_data_volume" {
  command = plan

  variables {
    data_size_gb = 50
  }

  assert {
    condition     = libvirt_volume.data["server"].size == 53687091200 && libvirt_volume.root["server"].size == 21474836480
    error_message = "data_size_gb is the size of the data volume, in GiB, and of nothing else."
  }
}

run "the_root_disk_grows_out_of_the_image" {
  command = plan

  variables {
    libvirt_root_size_gb = 12
  }

  assert {
    condition     = libvirt_volume.root["server"].size == 12884901888 && libvirt_volume.root["server"].base_volume_id == "/pool/image" && libvirt_volume.root["server"].name == "server-root.qcow2"
    error_message = "The host's own disk holds only what differs from the image."
  }
  assert {
    condition     = libvirt_volume.image.name == "image.qcow2" && libvirt_volume.image.source == "tests/image.qcow2"
    error_message = "Another image must be another volume, or the host would be left on a disk that changed below it."
  }
  assert {
    condition     = libvirt_volume.data["server"].size == 21474836480
    error_message = "The data volume must not change with the root disk."
  }
}

run "the_size_of_a_host" {
  command = plan

  variables {
    memory_mb = 8192
    cores     = 4
  }

  assert {
    condition     = libvirt_domain.host["server"].memory == 8192 && libvirt_domain.host["server"].vcpu == 4
    error_message = "memory_mb and cores are the host's."
  }
}

run "our_image_boots_the_kernel_beside_it" {
  command = plan

  assert {
    condition     = { for kind, volume in libvirt_volume.boot : kind => volume.source } == { initrd = "tests/image.qcow2.initrd", vmlinuz = "tests/image.qcow2.vmlinuz" }
    error_message = "Our image has no boot loader: it needs the kernel and the initrd beside it."
  }
  assert {
    condition     = libvirt_domain.host["server"].kernel == "/pool/boot" && libvirt_domain.host["server"].initrd == "/pool/boot"
    error_message = "The host must boot with them."
  }
  assert {
    condition     = jsonencode(libvirt_domain.host["server"].cmdline) == jsonencode([{ console = "ttyS0", root = "/dev/vda" }, { "_" = "rw" }])
    error_message = "In another order, libvirt gives it back as a change that replaces the host on every run."
  }
}

run "emulation_leaves_out_what_guards_a_real_processor" {
  command = plan

  variables {
    libvirt_domain_type = "qemu"
  }

  assert {
    condition     = jsonencode(libvirt_domain.host["server"].cmdline) == jsonencode([{ clearcpuid = "erms", console = "ttyS0", idle = "halt", mitigations = "off", root = "/dev/vda" }, { "_" = "rw" }])
    error_message = "An emulated processor guesses nothing, and must not pay for it."
  }
}

run "an_image_with_a_boot_loader_boots_by_itself" {
  command = plan

  variables {
    host_image = "/srv/images/debian-13-generic-amd64.qcow2"
  }

  assert {
    condition     = length(libvirt_volume.boot) == 0 && libvirt_domain.host["server"].kernel == null && libvirt_domain.host["server"].initrd == null
    error_message = "Without a kernel beside it, the image brings its own."
  }
  assert {
    condition     = length(coalesce(libvirt_domain.host["server"].cmdline, [])) == 0
    error_message = "libvirt refuses a command line without a kernel."
  }
  assert {
    condition     = libvirt_volume.image.name == "debian-13-generic-amd64.qcow2" && libvirt_volume.image.source == "/srv/images/debian-13-generic-amd64.qcow2"
    error_message = "An image of one's own is taken from where it lies."
  }
}

run "the_first_boot_formats_nothing_that_holds_data" {
  command = plan

  assert {
    condition     = startswith(libvirt_cloudinit_disk.host["server"].user_data, "#cloud-config\n")
    error_message = "cloud-init ignores a file without its first line."
  }
  assert {
    condition     = strcontains(yamldecode(libvirt_cloudinit_disk.host["server"].user_data).bootcmd[0][5], "/dev/vdb /srv/longrun ext4 nofail,x-systemd.makefs,x-systemd.growfs,")
    error_message = "systemd makes a file system on an empty data volume only, and lets it grow with the disk."
  }
  assert {
    condition     = !can(regex("fs_setup|disk_setup|overwrite|mkfs", libvirt_cloudinit_disk.host["server"].user_data))
    error_message = "cloud-init formats a disk whose label is another one than it was told: it must not know of any."
  }
}

run "the_first_boot_lets_in_the_key_and_nobody_else" {
  command = plan

  assert {
    condition     = strcontains(yamldecode(libvirt_cloudinit_disk.host["server"].user_data).bootcmd[0][5], "printf '%s\\n' 'ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIGVhc3k longrun-unit' > /etc/ssh/authorized_keys/longrun")
    error_message = "Ansible logs in with the environment's key."
  }
  assert {
    condition     = yamldecode(libvirt_cloudinit_disk.host["server"].user_data).users == [] && yamldecode(libvirt_cloudinit_disk.host["server"].user_data).disable_root == true && yamldecode(libvirt_cloudinit_disk.host["server"].user_data).ssh_pwauth == false
    error_message = "There must be no other user, no root login and no password."
  }
  assert {
    condition     = yamldecode(libvirt_cloudinit_disk.host["server"].user_data).hostname == "server"
    error_message = "A host must know its name."
  }
  assert {
    condition     = yamldecode(libvirt_cloudinit_disk.host["server"].meta_data)["instance-id"] == substr(sha256(libvirt_cloudinit_disk.host["server"].user_data), 0, 12)
    error_message = "cloud-init runs again only where the instance is another one."
  }
}

run "two_hosts_share_the_work" {
  command = plan

  variables {
    hosts = {
      web  = { groups = ["mlflow", "nginx"] }
      data = { groups = ["postgresql", "minio"] }
    }
  }

  assert {
    condition     = { for name, host in output.hosts : name => "${host.address} ${host.port} ${host.private_address}" } == { data = "10.216.92.10 22 10.216.92.10", web = "10.216.92.11 22 10.216.92.11" }
    error_message = "Each host needs an address of its own."
  }
  assert {
    condition     = { for name, host in libvirt_domain.host : name => one(host.network_interface).mac } == { data = "52:54:00:FD:BC:0A", web = "52:54:00:FD:BC:0B" }
    error_message = "Each host needs a hardware address of its own."
  }
  assert {
    condition     = { for name, volume in libvirt_volume.data : name => volume.name } == { data = "data-data.qcow2", web = "web-data.qcow2" } && { for name, volume in libvirt_volume.root : name => volume.name } == { data = "data-root.qcow2", web = "web-root.qcow2" }
    error_message = "Each host needs disks of its own."
  }
  assert {
    condition     = { for name, disk in libvirt_cloudinit_disk.host : name => "${disk.name} ${yamldecode(disk.user_data).hostname}" } == { data = "data-cloud-init.iso data", web = "web-cloud-init.iso web" }
    error_message = "Each host must be told its own name."
  }
  assert {
    condition     = output.public_url == "https://10.216.92.11"
    error_message = "Clients reach the host with nginx, whichever its place."
  }
}

run "a_name_of_ones_own_wins" {
  command = plan

  variables {
    server_name = "mlflow.example.org"
    # For containers only: a host with an address of its own listens on 443.
    https_port = 9443
    ssh_port   = 9422
  }

  assert {
    condition     = output.public_url == "https://mlflow.example.org"
    error_message = "Clients are told the name for which the certificate is made, and no port."
  }
  assert {
    condition     = output.hosts["server"].address == "10.216.92.10" && output.hosts["server"].port == 22
    error_message = "The name may lead to another machine: Ansible takes the host's own address."
  }
}

run "the_disks_lie_where_they_should" {
  command = plan

  variables {
    libvirt_directory = "/data/vm"
  }

  assert {
    condition     = one(libvirt_pool.this.target).path == "/data/vm/unit"
    error_message = "The disks must be where there is room for them."
  }
}
