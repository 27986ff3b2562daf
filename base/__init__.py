"""The ground floor: errors, progress, files, pictures and the shape of a stage. Imports nothing of the house."""
