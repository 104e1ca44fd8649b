-- What a database that is away will be told when it is back, in the order in which it was given up.
CREATE TABLE waiting (
    number  INTEGER PRIMARY KEY AUTOINCREMENT,
    request TEXT NOT NULL
) STRICT;

-- What the database was told and would not take: kept for the operator.
CREATE TABLE refused (
    number  INTEGER PRIMARY KEY,
    request TEXT NOT NULL,
    reason  TEXT NOT NULL
) STRICT;
