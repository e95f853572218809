"""The storage on Redis or Valkey. Imported only where one is opened, because redis-py takes long to import."""

from __future__ import annotations

from jobqueue.storage.redis.backend import AsyncRedisStorage, RedisStorage
from jobqueue.storage.redis.connect import RedisServer, open_redis

__all__ = ["AsyncRedisStorage", "RedisServer", "RedisStorage", "open_redis"]
