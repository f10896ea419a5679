"""Text language models as teacher and judge: what they promise (`base`) and local ones (`local`)."""
