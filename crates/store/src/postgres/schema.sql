-- A guard is a hash of its row (guard.rs): what no chain covers shows its damage too.
create table streams (
    key bigint generated always as identity primary key,
    space text not null,
    name text not null,
    meta bytea not null,
    created bigint not null,
    sequence bigint not null,
    time bigint not null,
    chain bytea not null,
    sealed bigint not null,
    guard bytea not null,
    unique (space, name)
-- Heads change with every append: room beside them, so that no index has to.
) with (fillfactor = 60);
create index streams_created on streams (space, created);

create table records (
    stream bigint not null,
    sequence bigint not null,
    time bigint not null,
    id uuid not null,
    kind text not null,
    meta bytea not null,
    body bytea not null,
    digest bytea not null,
    chain bytea not null,
    primary key (stream, sequence)
);
-- Squeezing what is mostly squeezed or ciphered already would be work for nothing.
alter table records alter column body set storage external, alter column meta set storage external;

-- Where each record stands: kept when it goes to an archive.
create table ids (
    id uuid primary key,
    stream bigint not null,
    sequence bigint not null
);

create table repeats (
    stream bigint not null,
    name text not null,
    request bytea not null,
    first bigint not null,
    last bigint not null,
    guard bytea not null,
    primary key (stream, name)
);

create table snapshots (
    stream bigint primary key,
    sequence bigint not null,
    body bytea not null,
    guard bytea not null
);

create table archives (
    file text primary key,
    time bigint not null,
    records bigint not null,
    bytes bigint not null,
    digest bytea not null,
    guard bytea not null
);

create table sealed (
    stream bigint not null,
    first bigint not null,
    last bigint not null,
    chain bytea not null,
    file text not null,
    -- Of the records' ids, in their order.
    ids bytea not null,
    -- Whether the rows are gone.
    swept boolean not null,
    guard bytea not null,
    primary key (stream, first)
);
