locals {
  digest = sha256(var.name)
  subnet = coalesce(var.subnet, format(
    "10.%d.%d.0/24",
    192 + parseint(substr(local.digest, 0, 2), 16) % 32,
    parseint(substr(local.digest, 2, 2), 16),
  ))
  own_network = var.aws_subnet_id == null
  network = {
    subnet_id = local.own_network ? one(aws_subnet.this[*].id) : var.aws_subnet_id
    vpc_id    = local.own_network ? one(aws_vpc.this[*].id) : one(data.aws_subnet.given[*].vpc_id)
    zone      = local.own_network ? one(aws_subnet.this[*].availability_zone) : one(data.aws_subnet.given[*].availability_zone)
  }
  # A fixed place for each host keeps its address, which PostgreSQL's access list names. In a subnet of others' any
  # address may be taken, so there AWS chooses.
  hosts = {
    for index, name in keys(var.hosts) : name => {
      groups     = var.hosts[name].groups
      private_ip = local.own_network ? cidrhost(local.subnet, 10 + index) : null
    }
  }
  entrance  = one([for name, host in local.hosts : name if contains(host.groups, "nginx")])
  addresses = { for name in keys(local.hosts) : name => var.aws_public_address ? aws_eip.host[name].public_ip : aws_instance.host[name].private_ip }
  image     = coalesce(var.host_image, "debian-${var.debian_release}")
  data_path = "/srv/longrun"
}

data "aws_ec2_instance_type" "host" {
  instance_type = var.aws_instance_type

  lifecycle {
    postcondition {
      condition     = self.memory_size >= var.memory_mb && self.default_vcpus >= var.cores
      error_message = "aws_instance_type ${var.aws_instance_type} has ${self.memory_size} MiB of memory and ${self.default_vcpus} cores, memory_mb and cores ask for ${var.memory_mb} and ${var.cores}: take a larger type, or lower them."
    }
    postcondition {
      condition     = contains(self.supported_architectures, "x86_64") && self.ebs_nvme_support == "required"
      error_message = "aws_instance_type ${var.aws_instance_type} can't carry a host: it must be an x86_64 type of the Nitro system, such as t3.medium, m6i.large or m6a.large."
    }
  }
}

# Not every zone of a region has every type.
data "aws_ec2_instance_type_offerings" "zones" {
  count = local.own_network ? 1 : 0

  location_type = "availability-zone"

  filter {
    name   = "instance-type"
    values = [var.aws_instance_type]
  }
}

data "aws_subnet" "given" {
  count = local.own_network ? 0 : 1

  id = var.aws_subnet_id
}

data "aws_ami" "debian" {
  count = var.host_image == null ? 1 : 0

  # Debian's own account: https://wiki.debian.org/Cloud/AmazonEC2Image
  owners      = ["136693071363"]
  most_recent = true

  filter {
    name   = "name"
    values = ["debian-${var.debian_release}-amd64-*"]
  }
}

resource "aws_vpc" "this" {
  count = local.own_network ? 1 : 0

  cidr_block = local.subnet

  tags = { Name = "longrun-${var.name}" }
}

resource "aws_internet_gateway" "this" {
  count = local.own_network ? 1 : 0

  vpc_id = aws_vpc.this[0].id

  tags = { Name = "longrun-${var.name}" }
}

resource "aws_route_table" "this" {
  count = local.own_network ? 1 : 0

  vpc_id = aws_vpc.this[0].id

  route {
    cidr_block = "0.0.0.0/0"
    gateway_id = aws_internet_gateway.this[0].id
  }

  tags = { Name = "longrun-${var.name}" }
}

resource "aws_subnet" "this" {
  count = local.own_network ? 1 : 0

  vpc_id     = aws_vpc.this[0].id
  cidr_block = local.subnet
  # Zones proper end in one letter; a local zone, which the account may have too, in a number and a letter.
  availability_zone = sort([for zone in data.aws_ec2_instance_type_offerings.zones[0].locations : zone if can(regex("^[a-z]+(-[a-z]+)+-[0-9][a-z]$", zone))])[0]

  tags = { Name = "longrun-${var.name}" }

  lifecycle {
    # The data volumes can't follow into another zone, should AWS one day offer the type in one that sorts first.
    ignore_changes = [availability_zone]
  }
}

resource "aws_route_table_association" "this" {
  count = local.own_network ? 1 : 0

  subnet_id      = aws_subnet.this[0].id
  route_table_id = aws_route_table.this[0].id
}

resource "aws_security_group" "host" {
  name        = "longrun-${var.name}-host"
  description = "Hosts of longrun ${var.name}: ssh, and each other"
  vpc_id      = local.network.vpc_id

  ingress {
    description = "ssh"
    protocol    = "tcp"
    from_port   = 22
    to_port     = 22
    cidr_blocks = var.aws_ssh_networks
  }

  ingress {
    description = "hosts of this environment"
    protocol    = "-1"
    from_port   = 0
    to_port     = 0
    self        = true
  }

  # What leaves the host is its own firewall's business, which knows the users.
  egress {
    protocol    = "-1"
    from_port   = 0
    to_port     = 0
    cidr_blocks = ["0.0.0.0/0"]
  }

  tags = { Name = "longrun-${var.name}-host" }
}

resource "aws_security_group" "nginx" {
  name        = "longrun-${var.name}-nginx"
  description = "HTTPS to longrun ${var.name}"
  vpc_id      = local.network.vpc_id

  ingress {
    description = "HTTPS"
    protocol    = "tcp"
    from_port   = 443
    to_port     = 443
    cidr_blocks = var.aws_https_networks
  }

  tags = { Name = "longrun-${var.name}-nginx" }
}

resource "aws_ebs_volume" "data" {
  for_each = local.hosts

  availability_zone = local.network.zone
  type              = "gp3"
  size              = var.data_size_gb
  encrypted         = true

  tags = { Name = "longrun-${var.name}-${each.key}-data" }

  lifecycle {
    # A volume can't move: while the network is made anew its zone is not known yet, and Terraform would make another volume.
    ignore_changes = [availability_zone]
    # The history of every run lives here, and nothing can bring it back; `make destroy` lifts this in a copy of its own.
    prevent_destroy = true
  }
}

module "cloud_init" {
  source   = "../../modules/cloud-init"
  for_each = local.hosts

  hostname       = each.key
  ssh_public_key = var.ssh_public_key
  # The kernel numbers NVMe disks as they come; this name follows the volume.
  data_device = "/dev/disk/by-id/nvme-Amazon_Elastic_Block_Store_${replace(aws_ebs_volume.data[each.key].id, "-", "")}"
}

resource "aws_instance" "host" {
  for_each = local.hosts

  ami                    = coalesce(var.host_image, one(data.aws_ami.debian[*].id))
  instance_type          = data.aws_ec2_instance_type.host.instance_type
  subnet_id              = local.network.subnet_id
  private_ip             = each.value.private_ip
  vpc_security_group_ids = concat([aws_security_group.host.id], contains(each.value.groups, "nginx") ? [aws_security_group.nginx.id] : [])
  iam_instance_profile   = var.aws_bucket != null && contains(each.value.groups, "mlflow") ? one(aws_iam_instance_profile.artifacts[*].name) : null
  # The last line is for ignore_changes below.
  user_data                   = "${chomp(module.cloud_init[each.key].user_data)}\n# Image: ${local.image}\n"
  user_data_replace_on_change = true

  # Sessions only, and none for a program behind a further hop: a forged request to this address must not win the role's keys.
  metadata_options {
    http_endpoint               = "enabled"
    http_tokens                 = "required"
    http_put_response_hop_limit = 1
  }

  root_block_device {
    volume_type = "gp3"
    volume_size = 20
    encrypted   = true
  }

  tags = { Name = "longrun-${var.name}-${each.key}" }

  lifecycle {
    # Debian brings out a new image every few weeks, which must not replace a running host. Another host_image or
    # debian_release must: it changes user_data. Whatever replaces a host gives it the newest image.
    ignore_changes = [ami]
  }
}

resource "aws_volume_attachment" "data" {
  for_each = local.hosts

  device_name = "/dev/sdf"
  volume_id   = aws_ebs_volume.data[each.key].id
  instance_id = aws_instance.host[each.key].id
  # PostgreSQL must have closed its files before its disk goes away.
  stop_instance_before_detaching = true
}

# An address that stays when the host is stopped or replaced.
resource "aws_eip" "host" {
  for_each = var.aws_public_address ? local.hosts : {}

  domain   = "vpc"
  instance = aws_instance.host[each.key].id

  tags = { Name = "longrun-${var.name}-${each.key}" }

  # AWS associates no address without the gateway, and removes no gateway with an address behind it.
  depends_on = [aws_internet_gateway.this]
}

resource "aws_route53_record" "server" {
  count = var.aws_dns_zone_id == null ? 0 : 1

  zone_id = var.aws_dns_zone_id
  name    = var.server_name
  type    = "A"
  ttl     = 300
  records = [local.addresses[local.entrance]]
}

# In MinIO's place, where aws_bucket names one.
resource "aws_s3_bucket" "artifacts" {
  count = var.aws_bucket == null ? 0 : 1

  bucket = var.aws_bucket
  # What `make destroy` is asked for; until then the guard below keeps the bucket and all that is in it.
  force_destroy = true

  tags = { Name = "longrun-${var.name}" }

  lifecycle {
    # The models and artifacts of every run; `make destroy` lifts this in a copy of its own.
    prevent_destroy = true
  }
}

resource "aws_s3_bucket_versioning" "artifacts" {
  count = var.aws_bucket == null ? 0 : 1

  bucket = aws_s3_bucket.artifacts[0].id

  versioning_configuration {
    status = "Enabled"
  }
}

resource "aws_s3_bucket_server_side_encryption_configuration" "artifacts" {
  count = var.aws_bucket == null ? 0 : 1

  bucket = aws_s3_bucket.artifacts[0].id

  rule {
    apply_server_side_encryption_by_default {
      sse_algorithm = "AES256"
    }
  }
}

resource "aws_s3_bucket_public_access_block" "artifacts" {
  count = var.aws_bucket == null ? 0 : 1

  bucket                  = aws_s3_bucket.artifacts[0].id
  block_public_acls       = true
  block_public_policy     = true
  ignore_public_acls      = true
  restrict_public_buckets = true
}

resource "aws_iam_role" "artifacts" {
  count = var.aws_bucket == null ? 0 : 1

  name = "longrun-${var.name}"
  assume_role_policy = jsonencode({
    Version   = "2012-10-17"
    Statement = [{ Effect = "Allow", Action = "sts:AssumeRole", Principal = { Service = "ec2.amazonaws.com" } }]
  })
}

resource "aws_iam_role_policy" "artifacts" {
  count = var.aws_bucket == null ? 0 : 1

  name = "artifacts"
  role = aws_iam_role.artifacts[0].id
  policy = jsonencode({
    Version = "2012-10-17"
    Statement = [
      {
        Effect   = "Allow"
        Action   = ["s3:GetBucketLocation", "s3:ListBucket", "s3:ListBucketMultipartUploads"]
        Resource = "arn:aws:s3:::${var.aws_bucket}"
      },
      {
        Effect   = "Allow"
        Action   = ["s3:AbortMultipartUpload", "s3:DeleteObject", "s3:GetObject", "s3:ListMultipartUploadParts", "s3:PutObject"]
        Resource = "arn:aws:s3:::${var.aws_bucket}/*"
      },
    ]
  })
}

resource "aws_iam_instance_profile" "artifacts" {
  count = var.aws_bucket == null ? 0 : 1

  name = "longrun-${var.name}"
  role = aws_iam_role.artifacts[0].name
}
