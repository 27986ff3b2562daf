"""The ground floor: errors, progress, files, images and the shape of a stage. Imports nothing of the house."""
