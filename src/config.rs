//! File + environment + flags -> each room's own Config.
