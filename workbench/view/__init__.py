"""Stage 8, what people see: pages, JSON routes, the guard in front of them. Reads run folders, writes only
into inboxes. No torch."""
