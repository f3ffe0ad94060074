"""Rollouts: a policy acts in a world, tokens in and tokens out."""
