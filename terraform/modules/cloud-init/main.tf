# The same first boot for every machine that has cloud-init: a virtual machine here or in a cloud.
locals {
  # Before ssh starts, so that nobody meets the host with another key than the one on its data volume. systemd makes the
  # file system: only on a disk that holds nothing (x-systemd.makefs), and it grows with the disk (x-systemd.growfs).
  # cloud-init's own fs_setup would format a disk whose label is another one.
  first_boot = <<-EOT
    set -eu
    install -d -m 0755 ${local.data_path} /etc/ssh/authorized_keys
    printf '%s\n' '${var.ssh_public_key}' > /etc/ssh/authorized_keys/longrun
    sed -i '\| ${local.data_path} |d' /etc/fstab
    echo '${var.data_device} ${local.data_path} ext4 nofail,x-systemd.makefs,x-systemd.growfs,x-systemd.device-timeout=10min 0 2' >> /etc/fstab
    echo '${base64encode(file("${path.module}/../../host/setup"))}' | base64 -d > /run/longrun-setup
    sh /run/longrun-setup /
    systemctl daemon-reload
    # It has started by now, and has yet to read what the set-up wrote; nobody waits for it, as this runs before the system is up.
    systemctl try-restart --no-block systemd-resolved.service || true
    systemctl start $(systemd-escape --path --suffix=mount ${local.data_path}) ssh-host-key.service
  EOT
  data_path  = "/srv/longrun"

  user_data = {
    hostname = var.hostname
    # The one user is made by the script, and nobody logs in with a password.
    users        = []
    disable_root = true
    ssh_pwauth   = false
    bootcmd      = [["cloud-init-per", "instance", "longrun", "sh", "-c", local.first_boot]]
  }
}
