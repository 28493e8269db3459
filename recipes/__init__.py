"""One script per paper or study; each reads like its experiments section."""
