-- What holds in a ledger after every transaction. Each row is a violation.
SELECT 'the two sides do not cancel out' AS violation
WHERE (SELECT total(total) FROM credit) + (SELECT total(total) FROM debit) <> 0
UNION ALL
SELECT 'not all that was moved has arrived'
WHERE (SELECT total(total) FROM credit) <> (SELECT moved FROM state)
UNION ALL
SELECT 'there is not one state'
WHERE (SELECT count(*) FROM state) <> 1
UNION ALL
SELECT 'the last entry is not that of the state'
WHERE (SELECT n FROM state) > 0
  AND NOT EXISTS (SELECT * FROM entry JOIN state USING (n, link) WHERE n = (SELECT max(n) FROM entry))
UNION ALL
SELECT 'entries are missing'
WHERE (SELECT max(n) - min(n) + 1 FROM entry) <> (SELECT count(*) FROM entry)
UNION ALL
SELECT 'entry ' || later.n || ' does not follow from the one before it'
FROM entry AS earlier JOIN entry AS later ON later.n = earlier.n + 1
WHERE later.link <> (earlier.link * 31 + later.n * 7 + later.amount) % 2147483647;
