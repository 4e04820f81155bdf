"""The part of botocore that reads Bedrock's streams; it comes with boto3, in the extra `bedrock`."""
