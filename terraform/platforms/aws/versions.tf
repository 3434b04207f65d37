terraform {
  required_version = ">= 1.9"

  # The state lies in the environment's folder; `make provision` names it.
  backend "local" {}

  required_providers {
    aws = {
      source = "hashicorp/aws"
      # renovate: datasource=terraform-provider depName=hashicorp/aws
      version = "5.100.0"
    }
  }
}

# Takes its credentials from where every AWS tool does: the environment, ~/.aws, or the role of the machine it runs on.
provider "aws" {
  region = var.aws_region

  default_tags {
    tags = { "longrun.environment" = var.name }
  }
}
