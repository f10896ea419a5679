"""Alignment training: SFT, RBA-Single, RBA-Group and DPO on spoken instructions. Entry: `run.train(recipe, out)`."""
