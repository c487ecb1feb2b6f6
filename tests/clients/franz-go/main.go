// franz-go against a broker: every acks and codec, idempotence, keys, headers, positions, topic admin, groups.
package main

import (
	"bytes"
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
)

const deadline = 60 * time.Second

// suite holds what every case needs. A case fails by returning an error.
type suite struct {
	bootstrap string
	admin     *kadm.Client
	made      int
}

type testCase struct {
	name string
	run  func(context.Context, *suite) error
}

func (s *suite) fresh(prefix string) string {
	s.made++
	return fmt.Sprintf("%s-%x-%d", prefix, time.Now().UnixMilli(), s.made)
}

func (s *suite) create(ctx context.Context, prefix string, partitions int32) (string, error) {
	topic := s.fresh(prefix)
	answer, err := s.admin.CreateTopic(ctx, partitions, 1, nil, topic)
	if err == nil {
		err = answer.Err
	}
	return topic, err
}

// records is the same awkward set as suite.py's: null and empty keys and values, repeated headers, binary and large values.
func records(topic string, count int) []*kgo.Record {
	var out []*kgo.Record
	for i := 0; i < count; i++ {
		r := &kgo.Record{Topic: topic}
		switch {
		case i%7 == 0:
		case i%29 == 3:
			r.Key = []byte{}
		default:
			r.Key = fmt.Appendf(nil, "key-%d", i%10)
		}
		switch {
		case i%11 == 5:
		case i%13 == 4:
			r.Value = []byte{}
		default:
			r.Value = fmt.Appendf(nil, "%06d:", i)
			for at := 0; at < i*17%900; at++ {
				r.Value = append(r.Value, byte(i+at))
			}
		}
		if i%5 == 0 {
			r.Headers = []kgo.RecordHeader{{Key: "trace", Value: fmt.Append(nil, i)}, {Key: "empty", Value: []byte{}}, {Key: "null"},
				{Key: "trace", Value: []byte("again")}, {Key: "été", Value: []byte{0, 255}}}
		}
		out = append(out, r)
	}
	return out
}

// same compares two byte strings, null and empty apart.
func same(a, b []byte) bool { return (a == nil) == (b == nil) && bytes.Equal(a, b) }

func sameRecord(got, wanted *kgo.Record) error {
	if !same(got.Key, wanted.Key) || !same(got.Value, wanted.Value) {
		return fmt.Errorf("offset %d: got key %q value %.40q, wanted key %q value %.40q", got.Offset, got.Key, got.Value, wanted.Key, wanted.Value)
	}
	if len(got.Headers) != len(wanted.Headers) {
		return fmt.Errorf("offset %d: %d headers, wanted %d", got.Offset, len(got.Headers), len(wanted.Headers))
	}
	for i, h := range got.Headers {
		if h.Key != wanted.Headers[i].Key || !same(h.Value, wanted.Headers[i].Value) {
			return fmt.Errorf("offset %d: header %d is %q=%q, wanted %q=%q", got.Offset, i, h.Key, h.Value, wanted.Headers[i].Key, wanted.Headers[i].Value)
		}
	}
	return nil
}

func (s *suite) send(ctx context.Context, what []*kgo.Record, options ...kgo.Opt) error {
	client, err := kgo.NewClient(append([]kgo.Opt{kgo.SeedBrokers(s.bootstrap), kgo.ProducerLinger(5 * time.Millisecond)}, options...)...)
	if err != nil {
		return err
	}
	defer client.Close()
	return client.ProduceSync(ctx, what...).FirstErr()
}

// read reads `count` records of one partition from `from`, and then makes sure that no more come.
func (s *suite) read(ctx context.Context, topic string, partition int32, from kgo.Offset, count int) ([]*kgo.Record, error) {
	client, err := kgo.NewClient(kgo.SeedBrokers(s.bootstrap), kgo.FetchMaxWait(200*time.Millisecond), kgo.ConsumeResetOffset(kgo.NoResetOffset()),
		kgo.ConsumePartitions(map[string]map[int32]kgo.Offset{topic: {partition: from}}))
	if err != nil {
		return nil, err
	}
	defer client.Close()
	var out []*kgo.Record
	for {
		wait := deadline
		if len(out) >= count {
			wait = 300 * time.Millisecond
		}
		limited, cancel := context.WithTimeout(ctx, wait)
		fetches := client.PollFetches(limited)
		cancel()
		if len(out) >= count && errors.Is(fetches.Err(), context.DeadlineExceeded) {
			break
		}
		if err := fetches.Err(); err != nil {
			return nil, fmt.Errorf("after %d of %d records: %w", len(out), count, err)
		}
		out = append(out, fetches.Records()...)
	}
	if len(out) != count {
		return nil, fmt.Errorf("%d records, wanted %d", len(out), count)
	}
	return out, nil
}

func (s *suite) checkPartition(ctx context.Context, topic string, partition int32, wanted []*kgo.Record) error {
	got, err := s.read(ctx, topic, partition, kgo.NewOffset().AtStart(), len(wanted))
	if err != nil {
		return err
	}
	for i, r := range got {
		if r.Offset != int64(i) {
			return fmt.Errorf("offset %d at place %d", r.Offset, i)
		}
		if err := sameRecord(r, wanted[i]); err != nil {
			return err
		}
	}
	return nil
}

func metadata(ctx context.Context, s *suite) error {
	topic, err := s.create(ctx, "go-meta", 3)
	if err != nil {
		return err
	}
	found, err := s.admin.Metadata(ctx, topic)
	if err != nil {
		return err
	}
	if n := len(found.Topics[topic].Partitions); n != 3 || len(found.Brokers) < 1 || found.Cluster == "" {
		return fmt.Errorf("%d partitions, %d brokers, cluster %q", n, len(found.Brokers), found.Cluster)
	}
	if found.Topics[topic].ID == (kadm.TopicID{}) {
		return errors.New("the topic has no id")
	}
	return nil
}

func produceCases() []testCase {
	type codec struct {
		name  string
		codec kgo.CompressionCodec
	}
	codecs := []codec{{"none", kgo.NoCompression()}, {"gzip", kgo.GzipCompression()}, {"snappy", kgo.SnappyCompression()}, {"lz4", kgo.Lz4Compression()}, {"zstd", kgo.ZstdCompression()}}
	plain := []kgo.Opt{kgo.DisableIdempotentWrite()}
	modes := []struct {
		name    string
		options []kgo.Opt
	}{
		{"acks=0", append(plain, kgo.RequiredAcks(kgo.NoAck()))}, {"acks=1", append(plain, kgo.RequiredAcks(kgo.LeaderAck()))},
		{"acks=all", append(plain, kgo.RequiredAcks(kgo.AllISRAcks()))}, {"acks=all idempotent", nil},
	}
	var out []testCase
	for _, c := range codecs {
		for _, m := range modes {
			out = append(out, testCase{"produce " + m.name + " " + c.name, func(ctx context.Context, s *suite) error {
				topic, err := s.create(ctx, "go", 1)
				if err != nil {
					return err
				}
				options := append([]kgo.Opt{kgo.ProducerBatchCompression(c.codec), kgo.RecordPartitioner(kgo.ManualPartitioner())}, m.options...)
				if err := s.send(ctx, records(topic, 120), options...); err != nil {
					return err
				}
				return s.checkPartition(ctx, topic, 0, records(topic, 120))
			}})
		}
	}
	return out
}

func keyed(ctx context.Context, s *suite) error {
	topic, err := s.create(ctx, "go-keyed", 4)
	if err != nil {
		return err
	}
	var what []*kgo.Record
	for i := range 340 {
		what = append(what, &kgo.Record{Topic: topic, Key: fmt.Appendf(nil, "key-%d", i%17), Value: fmt.Append(nil, i)})
	}
	if err := s.send(ctx, what); err != nil {
		return err
	}
	home, byPartition := map[string]int32{}, map[int32][]*kgo.Record{}
	for _, r := range what {
		if was, ok := home[string(r.Key)]; ok && was != r.Partition {
			return fmt.Errorf("%s in two partitions", r.Key)
		}
		home[string(r.Key)] = r.Partition
		byPartition[r.Partition] = append(byPartition[r.Partition], r)
	}
	for partition, wanted := range byPartition {
		if err := s.checkPartition(ctx, topic, partition, wanted); err != nil {
			return err
		}
	}
	return nil
}

func roundRobin(ctx context.Context, s *suite) error {
	topic, err := s.create(ctx, "go-rr", 3)
	if err != nil {
		return err
	}
	what, wanted := records(topic, 90), map[int32][]*kgo.Record{}
	if err := s.send(ctx, what, kgo.RecordPartitioner(kgo.RoundRobinPartitioner())); err != nil {
		return err
	}
	for _, r := range what {
		wanted[r.Partition] = append(wanted[r.Partition], r)
	}
	for partition := range int32(3) {
		if len(wanted[partition]) != 30 {
			return fmt.Errorf("%d records in partition %d", len(wanted[partition]), partition)
		}
		if err := s.checkPartition(ctx, topic, partition, wanted[partition]); err != nil {
			return err
		}
	}
	return nil
}

func big(ctx context.Context, s *suite) error {
	topic, err := s.create(ctx, "go-big", 1)
	if err != nil {
		return err
	}
	var what []*kgo.Record
	for i := range 8000 {
		what = append(what, &kgo.Record{Topic: topic, Value: fmt.Appendf(nil, "%0100d", i)})
	}
	for i := range 3 {
		what = append(what, &kgo.Record{Topic: topic, Value: bytes.Repeat([]byte{byte(i)}, 900_000)})
	}
	if err := s.send(ctx, what, kgo.ProducerBatchCompression(kgo.NoCompression()), kgo.ProducerLinger(100*time.Millisecond)); err != nil {
		return err
	}
	return s.checkPartition(ctx, topic, 0, what)
}

func positions(ctx context.Context, s *suite) error {
	topic, err := s.create(ctx, "go-pos", 1)
	if err != nil {
		return err
	}
	base := time.Now().Add(-100 * time.Second).Truncate(time.Millisecond)
	var what []*kgo.Record
	for i := range 100 {
		what = append(what, &kgo.Record{Topic: topic, Value: fmt.Append(nil, i), Timestamp: base.Add(time.Duration(i) * 100 * time.Millisecond)})
	}
	if err := s.send(ctx, what); err != nil {
		return err
	}
	starts := []struct {
		what  string
		from  kgo.Offset
		first int
	}{
		{"offset 37", kgo.NewOffset().At(37), 37}, {"the last five", kgo.NewOffset().AtEnd().Relative(-5), 95},
		{"a time", kgo.NewOffset().AfterMilli(base.UnixMilli() + 4150), 42}, {"the end", kgo.NewOffset().AtEnd(), 100},
	}
	for _, start := range starts {
		got, err := s.read(ctx, topic, 0, start.from, 100-start.first)
		if err != nil {
			return fmt.Errorf("from %s: %w", start.what, err)
		}
		for i, r := range got {
			if string(r.Value) != fmt.Sprint(start.first+i) || !r.Timestamp.Equal(what[start.first+i].Timestamp) {
				return fmt.Errorf("from %s: %q at %v in place %d", start.what, r.Value, r.Timestamp, i)
			}
		}
	}
	ends, err := s.admin.ListEndOffsets(ctx, topic)
	if err != nil {
		return err
	}
	if end, ok := ends.Lookup(topic, 0); !ok || end.Offset != 100 {
		return fmt.Errorf("end offset %+v", end)
	}
	if newest, err := s.admin.ListMaxTimestampOffsets(ctx, topic); err != nil {
		return err
	} else if at, _ := newest.Lookup(topic, 0); at.Offset != 99 || at.Timestamp != what[99].Timestamp.UnixMilli() {
		return fmt.Errorf("offset of the newest time: %+v", at)
	}
	return nil
}

func topicAdmin(ctx context.Context, s *suite) error {
	topic, err := s.create(ctx, "go-admin", 2)
	if err != nil {
		return err
	}
	if answer, err := s.admin.CreateTopic(ctx, 2, 1, nil, topic); !errors.Is(errors.Join(err, answer.Err), kerr.TopicAlreadyExists) {
		return fmt.Errorf("created twice: %v %v", err, answer.Err)
	}
	more, err := s.admin.UpdatePartitions(ctx, 2, topic)
	if err != nil || !errors.Is(more[topic].Err, kerr.InvalidPartitions) {
		return fmt.Errorf("no more partitions than before: %v %v", err, more[topic].Err)
	}
	if more, err = s.admin.UpdatePartitions(ctx, 5, topic); err != nil || more[topic].Err != nil {
		return fmt.Errorf("five partitions: %v %v", err, more[topic].Err)
	}
	what := records(topic, 10)
	for _, r := range what {
		r.Partition = 4
	}
	if err := s.send(ctx, what, kgo.RecordPartitioner(kgo.ManualPartitioner())); err != nil {
		return err
	}
	if err := s.checkPartition(ctx, topic, 4, what); err != nil {
		return err
	}
	if gone, err := s.admin.DeleteTopic(ctx, topic); err != nil || gone.Err != nil {
		return fmt.Errorf("delete: %v %v", err, gone.Err)
	}
	for end := time.Now().Add(deadline); ; {
		listed, err := s.admin.ListTopics(ctx)
		if err != nil {
			return err
		}
		if !listed.Has(topic) {
			break
		}
		if time.Now().After(end) {
			return errors.New("the topic stays")
		}
	}
	if gone, err := s.admin.DeleteTopic(ctx, topic); !errors.Is(errors.Join(err, gone.Err), kerr.UnknownTopicOrPartition) {
		return fmt.Errorf("deleted twice: %v %v", err, gone.Err)
	}
	return nil
}

func main() {
	bootstrap := flag.String("bootstrap", "", "HOST:PORT")
	flag.Parse()
	client, err := kgo.NewClient(kgo.SeedBrokers(*bootstrap))
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(2)
	}
	defer client.Close()
	s := &suite{bootstrap: *bootstrap, admin: kadm.NewClient(client)}
	cases := append([]testCase{{"metadata lists the broker and the new topic", metadata}}, produceCases()...)
	cases = append(cases, testCase{"keyed records stay together, in order", keyed}, testCase{"round-robin over partitions", roundRobin},
		testCase{"thousands of records and values near the size limit", big}, testCase{"read from an offset, near the end, from a time, from the end", positions},
		testCase{"topics: duplicate, more partitions, delete", topicAdmin})
	cases = append(cases, groupCases()...)
	passed, failed := 0, 0
	for _, c := range cases {
		started := time.Now()
		ctx, cancel := context.WithTimeout(context.Background(), 2*deadline)
		if err := c.run(ctx, s); err != nil {
			failed++
			fmt.Printf("FAIL franz-go: %s: %v\n", c.name, err)
		} else {
			passed++
			fmt.Printf("ok   franz-go: %s (%.1f s)\n", c.name, time.Since(started).Seconds())
		}
		cancel()
	}
	fmt.Printf("franz-go: %d passed, %d failed, 0 skipped\n", passed, failed)
	if failed > 0 {
		os.Exit(1)
	}
}
