package main

import (
	"context"
	"fmt"
	"slices"
	"strconv"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
)

const groupPartitions = 4

// groupCases are run for each way that franz-go's members share partitions.
func groupCases() []testCase {
	balancers := []struct {
		name string
		opt  kgo.Opt
	}{{"range", kgo.Balancers(kgo.RangeBalancer())}, {"cooperative-sticky", kgo.Balancers(kgo.CooperativeStickyBalancer())}}
	var out []testCase
	for _, b := range balancers {
		out = append(out, testCase{"group " + b.name + ": resumes where it committed", func(ctx context.Context, s *suite) error {
			return resume(ctx, s, b.opt)
		}}, testCase{"group " + b.name + ": two members share, the one that stays takes over", func(ctx context.Context, s *suite) error {
			return share(ctx, s, b.opt)
		}})
	}
	// KIP-848: the broker balances.
	out = append(out, testCase{"group consumer: resumes where it committed", func(ctx context.Context, s *suite) error {
		return resume(ctx, s, kgo.ServerSideBalancer())
	}})
	return append(out, testCase{"group admin: lag, commit, delete", groupAdmin})
}

// member is a client that reads in a group and remembers what it read.
func (s *suite) member(group, topic string, more ...kgo.Opt) (*kgo.Client, error) {
	opts := []kgo.Opt{kgo.SeedBrokers(s.bootstrap), kgo.ConsumerGroup(group), kgo.ConsumeTopics(topic), kgo.DisableAutoCommit(),
		kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()), kgo.FetchMaxWait(100 * time.Millisecond)}
	return kgo.NewClient(append(opts, more...)...)
}

func (s *suite) sendValues(ctx context.Context, topic string, first, count int) ([]string, error) {
	var sent []string
	var what []*kgo.Record
	for i := first; i < first+count; i++ {
		sent = append(sent, strconv.Itoa(i))
		what = append(what, &kgo.Record{Topic: topic, Partition: int32(i % groupPartitions), Value: []byte(strconv.Itoa(i))})
	}
	slices.Sort(sent)
	return sent, s.send(ctx, what, kgo.RecordPartitioner(kgo.ManualPartitioner()))
}

// readValues polls the members in turn until `done` says that it has enough.
func readValues(ctx context.Context, members []*kgo.Client, done func([]string) bool) ([]string, error) {
	var got []string
	for end := time.Now().Add(deadline); !done(got); {
		if time.Now().After(end) {
			return nil, fmt.Errorf("waited with %d records", len(got))
		}
		for _, m := range members {
			turn, cancel := context.WithTimeout(ctx, 50*time.Millisecond)
			m.PollFetches(turn).EachRecord(func(r *kgo.Record) { got = append(got, string(r.Value)) })
			cancel()
		}
	}
	slices.Sort(got)
	return got, nil
}

func count(wanted int) func([]string) bool {
	return func(got []string) bool { return len(got) >= wanted }
}

func resume(ctx context.Context, s *suite, balancer kgo.Opt) error {
	topic, err := s.create(ctx, "go-resume", groupPartitions)
	if err != nil {
		return err
	}
	group := s.fresh("resume")
	for _, turn := range [][2]int{{0, 60}, {60, 8}} {
		sent, err := s.sendValues(ctx, topic, turn[0], turn[1])
		if err != nil {
			return err
		}
		m, err := s.member(group, topic, balancer)
		if err != nil {
			return err
		}
		got, err := readValues(ctx, []*kgo.Client{m}, count(len(sent)))
		if err == nil {
			err = m.CommitUncommittedOffsets(ctx)
		}
		m.Close()
		if err != nil {
			return err
		}
		if !slices.Equal(got, sent) {
			return fmt.Errorf("read %v, sent %v", got, sent)
		}
	}
	return nil
}

func share(ctx context.Context, s *suite, balancer kgo.Opt) error {
	topic, err := s.create(ctx, "go-share", groupPartitions)
	if err != nil {
		return err
	}
	group := s.fresh("share")
	stays, err := s.member(group, topic, balancer)
	if err != nil {
		return err
	}
	defer stays.Close()
	goes, err := s.member(group, topic, balancer)
	if err != nil {
		return err
	}
	defer goes.Close()
	shared := func(wanted int) func([]string) bool {
		return func([]string) bool {
			described, err := s.admin.DescribeGroups(ctx, group)
			found := described[group]
			return err == nil && found.State == "Stable" && len(found.Members) == wanted && len(found.AssignedPartitions()[topic]) == groupPartitions
		}
	}
	if _, err := readValues(ctx, []*kgo.Client{stays, goes}, shared(2)); err != nil {
		return fmt.Errorf("two members: %w", err)
	}
	sent, err := s.sendValues(ctx, topic, 0, 40)
	if err != nil {
		return err
	}
	got, err := readValues(ctx, []*kgo.Client{stays, goes}, count(40))
	if err != nil || !slices.Equal(got, sent) {
		return fmt.Errorf("both read %v: %v", got, err)
	}
	for _, m := range []*kgo.Client{stays, goes} {
		if err := m.CommitUncommittedOffsets(ctx); err != nil {
			return err
		}
	}
	goes.Close()
	if _, err := readValues(ctx, []*kgo.Client{stays}, shared(1)); err != nil {
		return fmt.Errorf("one member: %w", err)
	}
	if sent, err = s.sendValues(ctx, topic, 40, 40); err != nil {
		return err
	}
	if got, err = readValues(ctx, []*kgo.Client{stays}, count(40)); err != nil || !slices.Equal(got, sent) {
		return fmt.Errorf("the one that stays read %v: %v", got, err)
	}
	return nil
}

func groupAdmin(ctx context.Context, s *suite) error {
	topic, err := s.create(ctx, "go-admin", groupPartitions)
	if err != nil {
		return err
	}
	group := s.fresh("admin")
	if _, err := s.sendValues(ctx, topic, 0, 40); err != nil {
		return err
	}
	m, err := s.member(group, topic)
	if err != nil {
		return err
	}
	if _, err := readValues(ctx, []*kgo.Client{m}, count(40)); err == nil {
		err = m.CommitUncommittedOffsets(ctx)
	}
	m.Close()
	if err != nil {
		return err
	}
	lag, err := s.admin.Lag(ctx, group)
	if err != nil || lag.Error() != nil || lag[group].Lag.Total() != 0 {
		return fmt.Errorf("lag %v: %v", lag, err)
	}
	if _, err := s.sendValues(ctx, topic, 40, 8); err != nil {
		return err
	}
	if lag, err = s.admin.Lag(ctx, group); err != nil || lag[group].Lag.Total() != 8 {
		return fmt.Errorf("lag after 8 more %v: %v", lag, err)
	}
	if _, err := s.admin.DeleteGroup(ctx, group); err != nil {
		return err
	}
	listed, err := s.admin.ListGroups(ctx)
	if err != nil || slices.Contains(listed.Groups(), group) {
		return fmt.Errorf("listed when deleted: %v", err)
	}
	return nil
}
