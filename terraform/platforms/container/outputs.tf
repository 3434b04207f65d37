output "hosts" {
  description = "Hosts by name: how Ansible reaches each, what it carries, where its data volume is mounted."
  value = {
    for name, host in local.hosts : name => {
      address         = "127.0.0.1"
      port            = host.ssh_port
      user            = "longrun"
      groups          = sort(host.groups)
      data_path       = local.data_path
      private_address = host.address
    }
  }

  # Nobody can log in to a host that is not there.
  depends_on = [docker_container.host]
}

output "public_url" {
  description = "Where clients reach the server."
  value       = "https://${coalesce(var.server_name, "localhost")}${var.https_port == 443 ? "" : ":${var.https_port}"}"
  depends_on  = [docker_container.host]
}
