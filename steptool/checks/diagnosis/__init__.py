"""Why a training on a round will teach little, and what to do about it. docs/diagnosis.md explains each finding."""
