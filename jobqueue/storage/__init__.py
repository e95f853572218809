"""What the queue does to its storage, as values (``ops``), the contract of a storage (``protocol``) and two storages."""
