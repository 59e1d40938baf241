"""Makes the command line a kubectl plugin that krew installs: an archive for each platform, and the manifest."""
