-- Answers by their key. Times are microseconds since 1970.
create table answers (
    number integer primary key,
    key blob not null unique,
    body blob not null,
    guard blob not null,
    bytes integer not null,
    made integer not null,
    expires integer,
    used integer not null
) strict;
create index answers_by_use on answers (used, number, bytes);
create index answers_by_end on answers (expires) where expires is not null;

-- How many bytes all of them have, kept by the database: several processes write.
create table room (bytes integer not null) strict;
insert into room values (0);
create trigger answer_put after insert on answers begin
    update room set bytes = bytes + new.bytes;
end;
create trigger answer_changed after update of bytes on answers begin
    update room set bytes = bytes + new.bytes - old.bytes;
end;
create trigger answer_gone after delete on answers begin
    update room set bytes = bytes - old.bytes;
end;
