"""The settings of Redis: how a client connects and shows who it is, and how long it waits."""

from pydantic import BaseModel, Field, SecretStr

from pointsman_server.config.types import KeyPrefix, OptionalPath, Seconds, Secret


class RedisSettings(BaseModel):
    """The part of ``Settings`` that is about Redis; its URL is among the engines."""

    redis_timeout_seconds: Seconds = Field(
        default=0.05, description="Seconds that one operation on Redis may take; later it counts as a miss."
    )
    redis_ca_file: OptionalPath = Field(
        default=None,
        description="PEM of the authorities of the certificates of Redis and Sentinel; by default those of the system.",
    )
    redis_cert_file: OptionalPath = Field(
        default=None, description="PEM of our certificate for Redis and Sentinel. Reread at every connect."
    )
    redis_key_file: OptionalPath = Field(
        default=None, description="PEM of the private key of that certificate. Reread at every connect."
    )
    redis_sentinel_user: str = Field(
        default="", description="The user at the Sentinels; that of REDIS_URL is the one at Redis itself."
    )
    redis_sentinel_password: Secret = Field(default=SecretStr(""), description="The password at the Sentinels.")
    redis_prefix: KeyPrefix = Field(default="pointsman", description="What every key in Redis begins with.")
