"""Makes the bucket, its versioning, the policy and the key that they say on standard input; prints what it changed.

Standard input is one JSON object with `endpoint`, `root_user`, `root_password`, `bucket`, `access_key` and `secret_key`.
Each line of output is one change; no output means that everything was right.
"""

import json
import sys
from typing import Any

from minio import Minio
from minio.commonconfig import ENABLED
from minio.credentials import StaticProvider
from minio.error import MinioAdminException, S3Error
from minio.minioadmin import MinioAdmin
from minio.versioningconfig import VersioningConfig


def policy(bucket: str) -> dict[str, Any]:
    """Return what MLflow may do: everything with objects in the bucket but for their history, nothing with the bucket itself or any other."""
    return {
        "Version": "2012-10-17",
        "Statement": [
            {
                "Effect": "Allow",
                "Action": ["s3:GetBucketLocation", "s3:ListBucket", "s3:ListBucketMultipartUploads"],
                "Resource": [f"arn:aws:s3:::{bucket}"],
            },
            {
                "Effect": "Allow",
                "Action": ["s3:AbortMultipartUpload", "s3:DeleteObject", "s3:GetObject", "s3:ListMultipartUploadParts", "s3:PutObject"],
                "Resource": [f"arn:aws:s3:::{bucket}/*"],
            },
            # MinIO lets whoever may delete an object delete its old versions too, unless they are denied.
            {"Effect": "Deny", "Action": ["s3:DeleteObjectVersion"], "Resource": [f"arn:aws:s3:::{bucket}/*"]},
        ],
    }


def ensure_bucket(client: Minio, bucket: str) -> list[str]:
    """Make the bucket and switch versioning on."""
    changes = []
    if not client.bucket_exists(bucket_name=bucket):
        client.make_bucket(bucket_name=bucket)
        changes.append(f"bucket {bucket} made")
    if client.get_bucket_versioning(bucket_name=bucket).status != ENABLED:
        client.set_bucket_versioning(bucket_name=bucket, config=VersioningConfig(ENABLED))
        changes.append(f"versioning of {bucket} switched on")
    return changes


def key_works(endpoint: str, access_key: str, secret_key: str, bucket: str) -> bool:
    """Return whether the key opens the bucket: its secret can't be read back, so it is tried."""
    client = Minio(endpoint, access_key=access_key, secret_key=secret_key, secure=False)
    try:
        next(iter(client.list_objects(bucket_name=bucket)), None)
    except S3Error as error:
        if error.code in {"AccessDenied", "InvalidAccessKeyId", "SignatureDoesNotMatch"}:
            return False
        raise
    return True


def ensure_key(admin: MinioAdmin, given: dict[str, str]) -> list[str]:
    """Make the policy and the key, and join them."""
    changes = []
    wanted, name = policy(given["bucket"]), f"{given['access_key']}-artifacts"
    try:
        present = json.loads(admin.policy_info(name))
    except MinioAdminException:
        present = None
    if present is None or _normal(present) != _normal(wanted):
        admin.policy_add(name, policy=wanted)
        changes.append(f"policy {name} written")
    if not key_works(given["endpoint"], given["access_key"], given["secret_key"], given["bucket"]):
        admin.user_add(given["access_key"], given["secret_key"])
        if json.loads(admin.user_info(given["access_key"])).get("policyName") != name:
            admin.attach_policy([name], user=given["access_key"])
        changes.append(f"key {given['access_key']} written")
    return changes


def _normal(document: dict[str, Any]) -> list[tuple[str, ...]]:
    """Return a policy's statements in an order that does not depend on who wrote them down."""
    return sorted((statement["Effect"], *sorted(statement["Action"]), *sorted(statement["Resource"])) for statement in document["Statement"])


def main() -> None:
    """Read the wishes, carry them out, print the changes."""
    given: dict[str, str] = json.load(sys.stdin)
    root = StaticProvider(given["root_user"], given["root_password"])
    changes = ensure_bucket(Minio(given["endpoint"], credentials=root, secure=False), given["bucket"])
    changes += ensure_key(MinioAdmin(endpoint=given["endpoint"], credentials=root, secure=False), given)
    print("\n".join(changes))


if __name__ == "__main__":
    main()
