"""The plugins that come with spex_proxy, registered exactly as a stranger's are."""
