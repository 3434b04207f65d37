output "hosts" {
  description = "Hosts by name: how Ansible reaches each, what it carries, where its data volume is mounted."
  value = {
    for name, host in local.hosts : name => {
      address         = local.addresses[name]
      port            = 22
      user            = "longrun"
      groups          = sort(host.groups)
      data_path       = local.data_path
      private_address = aws_instance.host[name].private_ip
    }
  }

  # Without its data volume a host would write the history onto its own disk.
  depends_on = [aws_volume_attachment.data]
}

output "public_url" {
  description = "Where clients reach the server."
  value       = "https://${coalesce(var.server_name, local.addresses[local.entrance])}"
  depends_on  = [aws_volume_attachment.data]
}
