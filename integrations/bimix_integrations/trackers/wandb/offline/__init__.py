"""`wandb-offline:DIR`: runs as W&B leaves them on a disk, read from its own transaction log."""
