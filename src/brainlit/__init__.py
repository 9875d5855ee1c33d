"""brainlit: fine-tune speech models on fMRI of people who listen to stories, and check what they learned."""

__version__ = "0.1.0"
