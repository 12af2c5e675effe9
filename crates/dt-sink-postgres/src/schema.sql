-- Version 1 of the tables of the sink `postgres`. Times are in UTC; the columns are explained in docs/postgres.md.
CREATE TABLE dt_events (
    event_id text PRIMARY KEY,
    connector text NOT NULL,
    project text,
    device text,
    type text NOT NULL,
    timestamp timestamptz,
    received_at timestamptz NOT NULL,
    labels jsonb,
    data jsonb,
    body bytea NOT NULL,
    incomplete text
);
CREATE TABLE dt_samples (
    device text,
    quantity text NOT NULL,
    unit text,
    time timestamptz NOT NULL,
    value double precision,
    text text,
    event_id text NOT NULL
);
CREATE INDEX dt_samples_device_quantity_time ON dt_samples (device, quantity, time);
CREATE TABLE dt_devices (
    device text,
    quantity text,
    project text,
    unit text,
    time timestamptz NOT NULL,
    value double precision,
    text text,
    event_id text NOT NULL,
    PRIMARY KEY (device, quantity)
) WITH (fillfactor = 70);
CREATE TABLE dt_schema (version integer NOT NULL);
INSERT INTO dt_schema VALUES (1);
