terraform {
  required_version = ">= 1.9"

  # The state lies in the environment's folder; `make provision` names it.
  backend "local" {}

  required_providers {
    docker = {
      source = "kreuzwerker/docker"
      # renovate: datasource=terraform-provider depName=kreuzwerker/docker
      version = "4.6.0"
    }
  }
}

# Talks to the engine that DOCKER_HOST names: podman's Docker-compatible socket, or a Docker Engine.
provider "docker" {}
