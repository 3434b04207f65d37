output "user_data" {
  description = "What cloud-init is told, as cloud-config."
  value       = "#cloud-config\n${yamlencode(local.user_data)}"
}
