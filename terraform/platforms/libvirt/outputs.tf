output "hosts" {
  description = "Hosts by name: how Ansible reaches each, what it carries, where its data volume is mounted."
  value = {
    for name, host in local.hosts : name => {
      address         = host.address
      port            = 22
      user            = "longrun"
      groups          = sort(host.groups)
      data_path       = local.data_path
      private_address = host.address
    }
  }

  # Nobody can log in to a host that is not there.
  depends_on = [libvirt_domain.host]
}

output "public_url" {
  description = "Where clients reach the server."
  value       = "https://${coalesce(var.server_name, local.entrance)}"
  depends_on  = [libvirt_domain.host]
}
