mod events;
mod faults;
mod killed_before_sync;
mod sender;
mod server;
mod sync_before_reply;
mod trace;
