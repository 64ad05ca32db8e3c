"""Makes the bucket for files on any S3 server."""

from urllib.parse import urlsplit

import urllib3
from minio import Minio
from minio.error import S3Error

from shared.settings import Settings


def ensure_bucket(settings: Settings) -> None:
    """Creates IM_S3_BUCKET if it is not there. Blocks: call it in a thread."""
    endpoint = urlsplit(settings.s3_endpoint)
    client = Minio(
        endpoint.netloc,
        access_key=settings.s3_access_key,
        secret_key=settings.s3_secret_key,
        secure=endpoint.scheme == "https",
        # By default it would wait for five minutes; a server just started needs seconds.
        http_client=urllib3.PoolManager(
            timeout=urllib3.Timeout(connect=2, read=10),
            retries=urllib3.Retry(
                total=8, backoff_factor=0.2, status_forcelist=(500, 502, 503, 504)
            ),
        ),
    )
    if client.bucket_exists(settings.s3_bucket):
        return
    try:
        client.make_bucket(settings.s3_bucket)
    except S3Error as error:
        if error.code != "BucketAlreadyOwnedByYou":  # another process was faster
            raise
