"""Readers of single files that several data sets share: sound, transcripts, tables, images, logs."""
