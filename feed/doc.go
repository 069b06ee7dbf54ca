// Package feed reads something of a server again and again, and hands the newest reading
// to as many readers as there are. It is for programs that watch locks: a live view, a
// page, a recorder.
//
// A [Feed] calls a function such as [Source.Snapshot] in an interval, and never twice at
// once. It keeps the load small by itself: it waits long enough between two readings that
// they take at most one twentieth (5 %) of a backend's time, whatever the interval. A
// reader that is slow gets the newest frame and skips the others, so that it neither slows
// down the reading nor makes frames pile up.
//
//	source := feed.NewSource(func(ctx context.Context) (driver.Querier, func(), error) {
//		conn, err := pgx.Connect(ctx, url)
//		if err != nil {
//			return nil, nil, err
//		}
//		q, _, err := inspect.Guard(ctx, pgxlock.Conn(conn))
//		if err != nil {
//			conn.Close(ctx)
//			return nil, nil, err
//		}
//		return q, func() { conn.Close(context.Background()) }, nil
//	})
//	defer source.Close()
//	locks := feed.New(source.Snapshot, time.Second)
//	go locks.Run(ctx)
//	for frame, err := range locks.Frames(ctx) {
//		...
//	}
//
// A [Source] is a session that is opened when it is needed, and again after it broke.
package feed
