# Offline: the rules for the Terraform language come with tflint; the provider itself checks the rest in `validate`.
config {
  format              = "compact"
  call_module_type    = "none"
}

plugin "terraform" {
  enabled = true
  preset  = "all"
}
