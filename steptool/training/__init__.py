"""Supervised fine-tuning, step-grained PPO, and the RFT arm."""
