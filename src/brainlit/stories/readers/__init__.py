"""Readers of single files that several data sets share: sound, transcripts, tables, images, logs.

In all of them a file that is not there is a FileNotFoundError, and one that is damaged, cannot be decoded or is of an
unknown kind a `brainlit.stories.SourceError` of the reader's own class; both name file, place, cause and cure.
"""
